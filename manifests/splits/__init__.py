"""Split rules: from identity keys to groups, from groups to splits."""
