"""The reference service, its clients, and how one model follows another without a gap."""
