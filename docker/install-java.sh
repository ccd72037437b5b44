#!/usr/bin/env bash
# Install what Spark needs of the system: Java 17, and ps for its scripts. Debian 12, as root.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends openjdk-17-jre-headless procps
rm -rf /var/lib/apt/lists/*
