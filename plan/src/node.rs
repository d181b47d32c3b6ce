//! The agent's plan: (desired, observed) → steps.
