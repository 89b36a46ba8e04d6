// Preloaded into one gateway: its clock runs five seconds ahead (R12).
const now = Date.now
Date.now = () => now() + 5000
