"""Pages for those who work with Troth, signed in with a name: marketers, stores, contact centre, privacy, operations, engineers."""
