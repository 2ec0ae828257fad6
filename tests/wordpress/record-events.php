<?php
/* Plugin Name: Records each test event that really runs (must-use). */
add_action(
	'test_event',
	function ( $arming, $number ) {
		global $wpdb;
		$row = array( 'blog_id' => get_current_blog_id(), 'arming' => $arming, 'number' => $number, 'ran_at' => microtime( true ) );
		$wpdb->insert( 'test_events_ran', $row, array( '%d', '%d', '%d', '%f' ) );
	},
	10,
	2
);
