"""What a comparison looks like: the leaderboard, its figures, and one HTML file that needs no network."""
