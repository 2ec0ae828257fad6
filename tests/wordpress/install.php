<?php
/*
 * Run twice in WordPress's folder: with WORDPRESS_SINGLE=1 it makes the main site and the network's tables,
 * without it the other sites, by WordPress's own functions.
 * Arguments: how many public sites besides the main site, how many of each excluded kind.
 */
$_SERVER += array( 'SERVER_PROTOCOL' => 'HTTP/1.1', 'REQUEST_METHOD' => 'GET', 'REMOTE_ADDR' => '127.0.0.1' );
$_SERVER['HTTP_HOST']   = getenv( 'WORDPRESS_DOMAIN' );
$_SERVER['SERVER_NAME'] = getenv( 'WORDPRESS_DOMAIN' );
$_SERVER['REQUEST_URI'] = '/';

function stop_on_error( $result ) {
	if ( is_wp_error( $result ) ) {
		fwrite( STDERR, $result->get_error_message() . "\n" );
		exit( 1 );
	}
	return $result;
}

if ( getenv( 'WORDPRESS_SINGLE' ) ) {
	define( 'WP_INSTALLING', true );
	require getcwd() . '/wp-load.php';
	require ABSPATH . 'wp-admin/includes/upgrade.php';
	add_filter( 'pre_wp_mail', '__return_true' );
	wp_install( 'Main site', 'admin', 'admin@example.test', true, '', 'admin' );
	foreach ( $wpdb->tables( 'ms_global' ) as $table => $name ) {
		$wpdb->$table = $name;
	}
	install_network();
	stop_on_error( populate_network( 1, getenv( 'WORDPRESS_DOMAIN' ), 'admin@example.test', 'Test network', '/', false ) );
	exit( 0 );
}

require getcwd() . '/wp-load.php';
add_filter( 'pre_wp_mail', '__return_true' );
wp_suspend_cache_addition( true );

make_sites( (int) $argv[1], (int) $argv[2] );

// A function, because WordPress uses global variables of many names.
function make_sites( $public, $excluded ) {
	$kinds = array(
		'site'     => array(),
		'archived' => array( 'archived' => 1 ),
		'spam'     => array( 'spam' => 1 ),
		'deleted'  => array( 'deleted' => 1 ),
		'private'  => array( 'public' => 0 ),
	);
	foreach ( $kinds as $kind => $flags ) {
		for ( $i = 1; $i <= ( $flags ? $excluded : $public ); $i++ ) {
			$site = array(
				'domain'     => getenv( 'WORDPRESS_DOMAIN' ),
				'path'       => "/$kind$i/",
				'network_id' => 1,
				'title'      => "$kind $i",
				'user_id'    => 1,
			);
			$id   = stop_on_error( wp_insert_site( $site ) );
			if ( $flags ) {
				stop_on_error( wp_update_site( $id, $flags ) );
			}
		}
	}
}
