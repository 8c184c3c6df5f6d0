"""What every HTML page shares: charts, pictures, style."""
