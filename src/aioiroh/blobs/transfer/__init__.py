"""What both directions share: which items an answer holds, and moving them between streams and stores."""
