"""Files of annotation tools, a module each; `click_tools` has the table."""
