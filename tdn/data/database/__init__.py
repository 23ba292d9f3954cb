"""The frame database: many frames in one LMDB file."""
