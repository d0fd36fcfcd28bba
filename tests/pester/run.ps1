#Requires -Version 5.1
# Runs every Pester file beside this one: the workflow calls it on Windows, `make test` elsewhere,
# where what needs Windows (tag `Windows`) is skipped. Ends with 1 where a test failed or none ran.
Import-Module -Name Pester -RequiredVersion 5.7.1
$configuration = New-PesterConfiguration
$configuration.Run.Path = $PSScriptRoot
$configuration.Run.PassThru = $true
$configuration.Output.Verbosity = 'Detailed'
if ($env:OS -ne 'Windows_NT') { $configuration.Filter.ExcludeTag = @('Windows') }
$run = Invoke-Pester -Configuration $configuration
foreach ($test in $run.NotRun) { "skipped, needs Windows: $($test.ExpandedPath)" }
if (($run.Result -ne 'Passed') -or ($run.PassedCount -eq 0)) { exit 1 }
