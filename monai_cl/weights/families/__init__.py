"""Published weights: whose they are, what they fit, what was pretrained, their licence and their preparation."""
