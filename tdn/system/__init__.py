"""What every command needs: where things are, and how they are written."""
