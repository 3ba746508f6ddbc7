# Units that are gone are forgotten; what still runs of them goes on.
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload || :
fi
