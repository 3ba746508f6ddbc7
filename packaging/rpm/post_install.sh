# As packaging/debian/postinst: users, directories, and the agent alone; etcd, the kubelet and kube-proxy go on. $1 is
# 1 for a first installation, 2 and more for an upgrade.
systemd-sysusers quorate.conf || :
systemd-tmpfiles --create quorate.conf || :
if [ "$1" -eq 1 ]; then
  systemctl --no-reload preset quorate.service || :
fi
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload || :
  if [ "$1" -gt 1 ]; then
    systemctl try-restart quorate.service || :
  fi
fi
