#!/usr/bin/env bash
# Copies what `make manifests` generates into the chart: the CRDs, as templates,
# because Helm upgrades templates and not its crds/ folder; and the rules of the
# operator's role.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

chart=charts/switchboard
note='Copied by hack/sync-chart-crds.sh: edit the markers in api/ and controllers/, then make manifests.'

mkdir -p "$chart/templates/crds" "$chart/files"
for crd in config/crd/bases/*.yaml; do
  if grep -qF '{{' "$crd"; then
    echo "$crd: contains {{, which Helm would take for its own" >&2
    exit 1
  fi
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
  } >"$chart/templates/crds/${crd##*/}"
done

{
  echo "# $note"
  awk 'inside { print } /^rules:$/ { inside = 1 } END { if (!inside) exit 1 }' config/rbac/role.yaml
} >"$chart/files/operator-rules.yaml"
