"""What the tests of all tiers share: databases to test on, what agents say, faults, and races."""
