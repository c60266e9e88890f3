"""What runs every experiment: options, plan, devices, the loop, the folder, the page."""
