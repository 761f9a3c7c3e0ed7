"""What differs between two tables of the same stage: images, labels, and the likely cause of each flip."""
