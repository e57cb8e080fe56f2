"""CS-CLIP: a wrong detail lowers the score; units of captions have foils of their own (Kargi, Uselis, Oh, 2026)."""
