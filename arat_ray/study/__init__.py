"""Study: its folder, its trials, its rows, its progress; what a driver does that is not Ray's."""
