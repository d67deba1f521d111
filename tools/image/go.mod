module github.com/switchboardhub/switchboard/tools/image

go 1.26.0
