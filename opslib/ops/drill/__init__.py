"""The rollback drill: rehearse the bad day under load and measure it."""
