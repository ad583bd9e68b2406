"""What the repository is made with; no part of the package."""
