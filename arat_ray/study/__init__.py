"""Study: its folder, its ledger of trials, its rows, its progress; what a driver does that is not Ray's."""
