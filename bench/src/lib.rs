//! Load, limits and reports.
