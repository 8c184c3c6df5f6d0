"""What checks are made of: records, the database, statistics, policy, seal."""
