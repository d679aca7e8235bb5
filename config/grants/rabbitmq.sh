#!/bin/sh
# Sets the permissions (configure, write, read) of a RabbitMQ user: rabbitmq.sh ROLE [USER [VHOST]]
# ROLE is one of the roles below; USER must exist and defaults to ROLE; VHOST defaults to /.
set -eu
role=${1:-} user=${2:-$role} vhost=${3:-/}
case $role in
  worker) set -- '^usage\.reverts(\..+)?$' '^(usage\.reverts(\..+)?|amq\.default)$' '^usage\.reverts(\..+)?$' ;;
  worker-nodeclare) set -- '^$' '^(usage\.reverts\.(replies|dead)|amq\.default)$' '^usage\.reverts$' ;;
  worker-replay) set -- '^$' '^(usage\.reverts(\.(replies|dead))?|amq\.default)$' '^usage\.reverts(\.(dead|retry\..+))?$' ;;
  clerk) set -- '^$' '^$' '^usage\.reverts\.(dead|retry\..+)$' ;;
  gateway) set -- '^amq\.gen-' '^$' '^amq\.gen-' ;;
  client) set -- '^$' '^usage\.reverts$' '^$' ;;
  submitter) set -- '^amq\.gen-' '^usage\.reverts$' '^amq\.gen-' ;;
  republisher) set -- '^$' '^usage\.reverts\.replies$' '^$' ;;
  consumer) set -- '^$' '^$' '^usage\.reverts\.events$' ;;
  subscriber) set -- '^billing\.' '^billing\.' '^(billing\..+|usage\.reverts\.replies)$' ;;
  *) sed -n '2,3s/^# //p' "$0" >&2; exit 2 ;;
esac
exec rabbitmqctl set_permissions -p "$vhost" "$user" "$@"
