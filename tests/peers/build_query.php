<?php
// Prints the form that a client in PHP makes of what it is given in JSON.
echo http_build_query(json_decode(stream_get_contents(STDIN), true));
