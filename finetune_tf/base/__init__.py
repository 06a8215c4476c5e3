"""What every room above needs: arguments, paths, files, labels, checks of numbers."""
