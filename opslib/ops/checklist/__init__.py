"""What an operator checks: the runnable checklist and the doctor."""
