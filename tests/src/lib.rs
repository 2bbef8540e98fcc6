//! Whole-system checks: simulator, guards, campaigns.
