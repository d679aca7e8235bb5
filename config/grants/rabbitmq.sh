#!/bin/sh
# What a login of RabbitMQ may configure, write and read: rabbitmq.sh ROLE [USER [VHOST]]
# ROLE is one of those below; USER, which must be there, is called as the role unless it is named; VHOST is /.
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
