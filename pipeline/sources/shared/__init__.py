"""What adapters share: records, rules, name grammars."""
