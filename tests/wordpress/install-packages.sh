#!/usr/bin/env bash
# Install the Debian packages that the tests run (a real WordPress, a browser, promtool, systemd-analyze), as root;
# quick when nothing is missing.
# No packaged daemon is started: the tests start their own, with private configuration, as their children.
set -euo pipefail

packages=(
	wordpress wordpress-theme-twentytwentythree nginx-light mariadb-server curl
	php php-fpm php-cli php-mysql php-curl php-xml php-mbstring php-gd php-getid3
	chromium prometheus systemd
)

missing=()
for package in "${packages[@]}"; do
	[[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
done
[[ ${#missing[@]} -gt 0 ]] || exit 0

if [[ $(id -u) != 0 ]]; then
	echo "install-packages.sh: run it as root to install: ${missing[*]}" >&2
	exit 1
fi

# invoke-rc.d asks this file whether it may start a daemon; 101 is "no". One that is there already stays.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
	trap 'rm -f "$policy"' EXIT
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
fi

export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 "${missing[@]}" >/dev/null
