"""From images, masks and contrast series to numbers."""
