"""What every experiment is run by: options, plan, devices, the loop, the folder, the page."""
