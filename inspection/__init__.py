"""Looking into a trained network: its filters, maps, answers and mistakes."""
