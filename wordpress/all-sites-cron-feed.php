<?php
/**
 * Plugin Name: All Sites Cron Feed
 * Description: Lists the network's public sites and when each has its next cron event, for the all-sites-cron service.
 * Version: 1.0.0
 * Requires at least: 5.6
 * Requires PHP: 7.4
 * License: MIT
 *
 * Copy this file into wp-content/mu-plugins/ and set a token, in wp-config.php or as environment variable of PHP:
 *     define( 'ALL_SITES_CRON_FEED_TOKEN', 'at least 32 random characters' );
 *
 * GET /wp-json/all-sites-cron-feed/v1/sites on the main site, with "Authorization: Bearer TOKEN":
 *     ?after=ID&limit=N  {"version":1,"now":…,"sites":[{"id":1,"url":"https://…","next_due":…},…],"next":ID or null}
 *     ?ids=1,2,3         {"version":1,"now":…,"states":[{"id":1,"next_due":…,"locked":…},…]}
 * Times are Unix seconds on this server's clock. next_due is null where nothing is scheduled; locked is since when the
 * site's doing_cron lock is held, 0 without one (locks in a persistent object cache are not seen).
 * Other sites are read by SQL only: nothing of theirs is unserialized, and no site is switched to.
 */

namespace All_Sites_Cron_Feed;

defined( 'ABSPATH' ) || exit;

const API_NAMESPACE = 'all-sites-cron-feed/v1';
const MOST          = 500; // Sites of one answer.

add_action( 'rest_api_init', __NAMESPACE__ . '\register' );
add_filter( 'rest_post_dispatch', __NAMESPACE__ . '\forbid_caching', 10, 3 );

function register() {
	if ( ! is_multisite() || ! is_main_site() ) {
		return;
	}
	$id = array( 'type' => 'integer', 'minimum' => 1 );
	register_rest_route(
		API_NAMESPACE,
		'/sites',
		array(
			'methods'             => \WP_REST_Server::READABLE,
			'callback'            => __NAMESPACE__ . '\answer',
			'permission_callback' => __NAMESPACE__ . '\permit',
			'show_in_index'       => false,
			'args'                => array(
				'after' => array( 'minimum' => 0, 'default' => 0 ) + $id,
				'limit' => array( 'default' => MOST ) + $id,
				'ids'   => array( 'type' => 'array', 'items' => $id, 'maxItems' => MOST ),
			),
		)
	);
}

/** Without a token of its own the feed answers nobody. */
function permit( \WP_REST_Request $request ) {
	$token = defined( 'ALL_SITES_CRON_FEED_TOKEN' ) ? ALL_SITES_CRON_FEED_TOKEN : getenv( 'ALL_SITES_CRON_FEED_TOKEN' );
	if ( ! is_string( $token ) || '' === $token ) {
		return failure( 'not_configured', 'ALL_SITES_CRON_FEED_TOKEN is not set.', 403 );
	}
	if ( ! hash_equals( 'Bearer ' . $token, (string) $request->get_header( 'authorization' ) ) ) {
		return failure( 'forbidden', 'The bearer token is missing or wrong.', 403 );
	}
	return true;
}

/** Errors must not be kept by a cache either. */
function forbid_caching( $response, $server, $request ) {
	if ( 0 === strpos( $request->get_route(), '/' . API_NAMESPACE ) ) {
		$response->header( 'Cache-Control', 'no-store' );
	}
	return $response;
}

function answer( \WP_REST_Request $request ) {
	global $wpdb;
	$now   = time(); // Before the sites are read: what falls due meanwhile is not due yet.
	$limit = min( $request['limit'], MOST );
	$which = isset( $request['ids'] )
		? 'blog_id IN (' . implode( ',', array_map( 'intval', array_merge( array( 0 ), $request['ids'] ) ) ) . ')'
		: $wpdb->prepare( 'blog_id > %d', $request['after'] );
	// phpcs:ignore WordPress.DB.PreparedSQL -- $which is made of integers.
	$query = "SELECT blog_id FROM {$wpdb->blogs} WHERE $which AND site_id = %d AND public = '1' AND archived = '0'"
		. " AND deleted = '0' AND spam = '0' ORDER BY blog_id LIMIT %d";
	$ids   = array_map( 'intval', $wpdb->get_col( $wpdb->prepare( $query, get_current_network_id(), $limit ) ) );
	$found = '' === $wpdb->last_error ? options_of( $ids ) : null;
	if ( null === $found ) {
		return failure( 'database_error', 'The database could not be asked.', 500 );
	}
	$entries = array();
	foreach ( $found as $id => $options ) {
		$entry = array( 'id' => $id, 'next_due' => next_due( $options['cron'] ?? '' ) );
		if ( isset( $request['ids'] ) ) {
			$entries[] = $entry + array( 'locked' => (float) ( $options['_transient_doing_cron'] ?? 0 ) );
		} elseif ( isset( $options['siteurl'] ) ) {
			$entries[] = $entry + array( 'url' => $options['siteurl'] );
		}
	}
	$page = isset( $request['ids'] )
		? array( 'states' => $entries )
		: array( 'sites' => $entries, 'next' => count( $ids ) === $limit ? end( $ids ) : null );
	return rest_ensure_response( array( 'version' => 1, 'now' => $now ) + $page );
}

/** The first key of a `cron` option, by which core itself decides whether something is due; null without one. */
function next_due( string $cron ): ?int {
	return preg_match( '/^a:\d+:\{(?:s:7:"version";i:\d+;)?i:(-?\d+);/', $cron, $match ) ? (int) $match[1] : null;
}

/** Site id => option name => value, by one query; null on an error. Sites without tables are left out. */
function options_of( array $ids ): ?array {
	global $wpdb;
	$shown = $wpdb->suppress_errors();
	$rows  = read_options( $ids );
	if ( null === $rows ) { // Has a site no tables?
		$tables = array_combine( $ids, array_map( __NAMESPACE__ . '\options_table', $ids ) );
		$query  = 'SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME IN ('
			. implode( ', ', array_fill( 0, count( $tables ), '%s' ) ) . ')';
		$there  = $wpdb->get_col( $wpdb->prepare( $query, $tables ) ); // phpcs:ignore WordPress.DB.PreparedSQL
		$there  = array_uintersect( $tables, $there, 'strcasecmp' ); // MySQL may keep names in lower case.
		$rows   = '' === $wpdb->last_error ? read_options( array_keys( $there ) ) : null;
	}
	$wpdb->suppress_errors( $shown );
	$found = array();
	foreach ( $rows ?? array() as $row ) {
		$found[ (int) $row->id ][ $row->name ] = $row->value;
	}
	ksort( $found );
	return null === $rows ? null : $found;
}

/** One UNION ALL; converted, because sites' tables may differ in collation. */
function read_options( array $ids ): ?array {
	global $wpdb;
	$selects = array();
	foreach ( $ids as $id ) {
		$selects[] = sprintf( 'SELECT %d AS id, CONVERT(option_name USING utf8mb4) AS name,', $id )
			. " CONVERT(LEFT(option_value, IF(option_name = 'siteurl', 2000, 64)) USING utf8mb4) AS value FROM `"
			. options_table( $id ) . "` WHERE option_name IN ('siteurl', 'cron', '_transient_doing_cron')";
	}
	$rows = $selects ? $wpdb->get_results( implode( ' UNION ALL ', $selects ) ) : array(); // phpcs:ignore WordPress.DB
	return $selects && '' !== $wpdb->last_error ? null : $rows;
}

function options_table( int $id ): string {
	return $GLOBALS['wpdb']->get_blog_prefix( $id ) . 'options';
}

function failure( string $code, string $message, int $status ): \WP_Error {
	return new \WP_Error( "all_sites_cron_feed_$code", $message, array( 'status' => $status ) );
}
