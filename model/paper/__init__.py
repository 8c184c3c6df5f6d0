"""The paper's experiments: its tables, as commands."""
