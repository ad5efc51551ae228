"""What acts by itself: workflows, searches and webhooks go on after each event, whoever is connected."""
