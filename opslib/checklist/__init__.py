"""What an operator checks: daily, weekly and monthly, from everything below."""
