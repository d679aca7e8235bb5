#!/bin/sh
# Sets a login's permissions to configure, write and read: rabbitmq.sh ROLE [USER [VHOST]]
# ROLE is a role below. USER must exist; its default is ROLE. The default of VHOST is /.
set -eu
role=${1:-} user=${2:-$role} vhost=${3:-/}
configure='^$' write='^$' read='^$'
case $role in
  worker)
    configure='^usage\.reverts(\..+)?$'
    write='^(usage\.reverts(\..+)?|amq\.default)$'
    read='^usage\.reverts(\..+)?$'
    ;;
  worker-nodeclare)
    write='^(usage\.reverts\.(replies|dead)|amq\.default)$'
    read='^usage\.reverts$'
    ;;
  worker-replay)
    write='^(usage\.reverts(\.(replies|dead))?|amq\.default)$'
    read='^usage\.reverts(\.(dead|retry\..+))?$'
    ;;
  clerk) read='^usage\.reverts\.(dead|retry\..+)$' ;;
  gateway) configure='^amq\.gen-' read='^amq\.gen-' ;;
  client) write='^usage\.reverts$' ;;
  submitter) configure='^amq\.gen-' write='^usage\.reverts$' read='^amq\.gen-' ;;
  republisher) write='^usage\.reverts\.replies$' ;;
  consumer) read='^usage\.reverts\.events$' ;;
  subscriber)
    configure='^billing\.'
    write='^billing\.'
    read='^(billing\..+|usage\.reverts\.replies)$'
    ;;
  *) sed -n '2,3s/^# //p' "$0" >&2; exit 2 ;;
esac
exec rabbitmqctl set_permissions -p "$vhost" "$user" "$configure" "$write" "$read"
