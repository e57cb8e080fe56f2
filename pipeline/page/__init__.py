"""The page that people look at a store with: its index, its filters, what it draws, and its server."""
