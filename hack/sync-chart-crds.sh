#!/usr/bin/env bash
# Copies what `make manifests` generates into the chart: the CRD, as a template,
# because Helm upgrades templates and not its crds/ folder; and the rules of the
# operator's role.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

chart=charts/switchboard
note='Copied by hack/sync-chart-crds.sh: edit the markers in api/ and controllers/, then make manifests.'

crd=config/crd/bases/switchboard.dev_hubs.yaml
if grep -qF '{{' "$crd"; then
  echo "$crd: contains {{, which Helm would take for its own" >&2
  exit 1
fi
mkdir -p "$chart/templates/crds" "$chart/files"
{
  echo "{{- /* $note */}}"
  echo '{{- if .Values.crds.install }}'
  awk '
    { print }
    /^  annotations:$/ && !done {
      print "    {{- if .Values.crds.keep }}"
      print "    helm.sh/resource-policy: keep"
      print "    {{- end }}"
      done = 1
    }
    END { if (!done) exit 1 }' "$crd"
  echo '{{- end }}'
} >"$chart/templates/crds/switchboard.dev_hubs.yaml"

{
  echo "# $note"
  awk 'inside { print } /^rules:$/ { inside = 1 } END { if (!inside) exit 1 }' config/rbac/role.yaml
} >"$chart/files/operator-rules.yaml"
