<?php
// Reads a form as a receiver in PHP does, and prints what it is in JSON.
parse_str(stream_get_contents(STDIN), $form);
echo json_encode($form, JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES);
