"""PMEmo: 794 choruses of pop songs; per-subject ratings in the release of 2018 only."""
