#!/bin/sh
# Prints the alerts as a PrometheusRule, the resource of the Prometheus operator. Committed as prometheusrule.yaml:
#
#   deploy/monitoring/wrap.sh > deploy/monitoring/prometheusrule.yaml
#
# With the address of a copy of this repository, each alert links to its runbook there:
#
#   deploy/monitoring/wrap.sh https://git.example.com/tuinly-operator/blob/main/ | kubectl apply -f -
set -eu
cat <<END
# Made by wrap.sh from prometheus-rules.yaml; edit that.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: tuinly-operator
  namespace: tuinly-system
  labels:
    app.kubernetes.io/name: tuinly-operator
    app.kubernetes.io/part-of: tuinly-operator
spec:
END
sed -n "/^groups:/,\$ { s|runbook_url: |&${1:-}|; s/^./  &/; p; }" "$(dirname "$0")/prometheus-rules.yaml"
