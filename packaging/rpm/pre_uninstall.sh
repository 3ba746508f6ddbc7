# As packaging/debian/prerm. $1 is 0 for a removal, 1 for an upgrade, which stops nothing.
if [ "$1" -eq 0 ]; then
  systemctl --no-reload disable quorate.service || :
  if [ -d /run/systemd/system ]; then
    systemctl stop quorate.service || :
  fi
  cat <<'END'
quorate: the agent is removed. It leaves everything else as it is:
  - etcd, the kubelet, kube-proxy and the pods of this machine go on until they are stopped or the machine is off;
    nothing starts them again. A machine that is to leave its cluster in good order does so by `quorate leave`,
    before the package is removed
  - the cluster's data on the etcd volume (/var/lib/etcd), its keys and records on this machine
    (/var/lib/quorate, /var/lib/kubelet, /etc/kubernetes, /etc/quorate), and all that is in its bucket
END
fi
