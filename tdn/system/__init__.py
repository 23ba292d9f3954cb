"""What every command needs: errors and exit codes, files, devices, ranks, folders."""
