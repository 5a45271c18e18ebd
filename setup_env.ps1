# Set ThermoDL up on Windows, from any folder:
#
#   powershell -ExecutionPolicy Bypass -File setup_env.ps1         make .venv, with this source installed for development
#   powershell -ExecutionPolicy Bypass -File setup_env.ps1 demo    the same, then `thermodl demo`
#   powershell -ExecutionPolicy Bypass -File setup_env.ps1 test    install as a user would, then run every check
#
# $env:PYTHON = 'C:\path\to\python.exe' chooses the interpreter. Running it again is quick and harmless; what an
# interrupted run left behind is made anew. For Windows PowerShell 5.1 and PowerShell 7; plain ASCII, since 5.1 reads
# a file without a byte order mark in the local code page. It follows setup_env.sh step by step.
#
# NOT TRIED: no Windows machine was at hand. The syntax was checked with a parser of the PowerShell grammar only. Never
# run: all of it, in particular the `py` launcher, the store stub of python.exe, the free-space check, the search for
# Chrome and Edge, paths longer than 260 characters, and what Ctrl-C leaves. A report from Windows is welcome.
param([string]$Mode = '')

Set-StrictMode -Version 2
# Programs write warnings to stderr; with Stop, 5.1 would take each for an exception. Exit codes are looked at instead.
$ErrorActionPreference = 'Continue'

$Root = Split-Path -Parent $MyInvocation.MyCommand.Path
$LogName = '.venv\setup.log'
$Log = Join-Path $Root $LogName
$Started = Get-Date
$script:Failed = @()

function Stop-Setup([string]$Message, [int]$Code = 1) {
    [Console]::Error.WriteLine("setup_env.ps1: $Message")
    exit $Code
}

function Write-Heading([string]$Text) {
    Write-Host ''
    Write-Host "== $Text"
}

# ---- One command, its output in the log, a sign of life here ----

function Invoke-Logged([string]$Program, [string[]]$Arguments) {
    # Returns the exit code. A line of pip's that says what it is at is shown at most every ten seconds.
    Add-Content -LiteralPath $Log -Value "`r`n> $Program $($Arguments -join ' ')" -Encoding UTF8
    $script:Section = New-Object System.Collections.Generic.List[string]
    $shown = Get-Date
    $began = $shown
    & $Program @Arguments 2>&1 | ForEach-Object {
        $line = "$_"
        $script:Section.Add($line)
        Add-Content -LiteralPath $Log -Value $line -Encoding UTF8
        if (((Get-Date) - $shown).TotalSeconds -ge 10) {
            $shown = Get-Date
            $text = $line.Trim()
            if ($text.Length -gt 90) { $text = $text.Substring(0, 90) }
            Write-Host ('   {0,4:0} s  {1}' -f ($shown - $began).TotalSeconds, $text)
        }
    } | Out-Null
    return $LASTEXITCODE
}

function Test-Section([string]$Pattern) {
    return [bool]($script:Section | Where-Object { $_ -match $Pattern })
}

function Stop-WithReason([string]$Doing, [string]$Folder) {
    if ((Get-FreeSpace) -lt 0.1 -or (Test-Section 'no space left on device|errno 28|not enough space|winerror 112')) {
        Stop-Setup "the disk got full while $Doing; free about 4 GB and run the same command again (log: $LogName)."
    }
    # pip downloads everything before it changes anything: only a full disk or a kill leaves something half installed.
    Remove-Item -LiteralPath (Join-Path $Folder '.unfinished') -Force -ErrorAction SilentlyContinue
    if (Test-Section 'connection|getaddrinfo|timed out|timeouterror|proxyerror|sslerror|unreachable|http error') {
        Stop-Setup "a download failed while $Doing; check the network or the proxy and run the same command again (log: $LogName)."
    }
    foreach ($line in $script:Section) {
        if ($line -match 'No matching distribution found for (\S+)') {
            Stop-Setup "pip finds no $($Matches[1]) for this Python; set `$env:PYTHON to another one, such as 3.12 (log: $LogName)."
        }
    }
    $first = $script:Section | Where-Object { $_ -match 'error' } | Select-Object -First 1
    Stop-Setup "an error came up while ${Doing}: $first (log: $LogName)."
}

# ---- What the machine offers ----

$Probe = 'import sys; print(''%d.%d.%d'' % sys.version_info[:3]); sys.exit(sys.version_info < (3, 11))'

function Get-PythonVersion([string]$Program, [string[]]$Arguments) {
    # Version and exit code of a Python; nothing for what does not start, such as the stub that opens the store.
    if (-not (Get-Command $Program -ErrorAction SilentlyContinue)) { return $null }
    $said = & $Program @Arguments -c $Probe 2>$null
    $code = $LASTEXITCODE
    if ("$said" -notmatch '^\d+\.\d+\.\d+$') { return $null }
    return @{ Version = "$said"; New = ($code -eq 0) }
}

function Find-Python {
    $candidates = @(@('py', '-3.13'), @('py', '-3.12'), @('py', '-3.11'), @('python3'), @('python'))
    if ($env:PYTHON) { $candidates = @(, @($env:PYTHON)) }
    $old = @()
    foreach ($candidate in $candidates) {
        $program = $candidate[0]
        $arguments = @($candidate | Select-Object -Skip 1)
        $found = Get-PythonVersion $program $arguments
        if ($null -eq $found) { continue }
        if (-not $found.New) { $old += "$candidate ($($found.Version))"; continue }
        & $program @arguments -c 'import ensurepip, venv' 2>$null | Out-Null
        if ($LASTEXITCODE -eq 0) {
            return @{ Program = $program; Arguments = $arguments; Version = $found.Version }
        }
        Stop-Setup "$candidate has no venv module; install Python from https://www.python.org or set `$env:PYTHON."
    }
    if ($old) {
        Stop-Setup "Python 3.11 or newer is needed, found only $($old -join ', '); install a newer one or set `$env:PYTHON."
    }
    if ($env:PYTHON) {
        Stop-Setup "PYTHON=$($env:PYTHON) does not start; set it to a Python 3.11 or newer, or remove it."
    }
    Stop-Setup "no Python was found; install Python 3.11 or newer (https://www.python.org) or set `$env:PYTHON."
}

function Get-FreeSpace {
    # GB; a drive that does not tell (a network share) is no reason to stop.
    try { return (New-Object System.IO.DriveInfo ([IO.Path]::GetPathRoot($Root))).AvailableFreeSpace / 1e9 }
    catch { return 1000 }
}

function Assert-Space([double]$Needed) {
    $free = Get-FreeSpace
    if ($free -lt $Needed) {
        Stop-Setup ('the disk has {0:0.0} GB free and about {1} GB are needed; free some and run the same command again.' -f $free, $Needed)
    }
}

# ---- A virtual environment and what is in it ----

function Get-VenvPython([string]$Folder) { return Join-Path $Folder 'Scripts\python.exe' }

function Get-VenvVersion([string]$Folder) {
    # The version of a usable environment, nothing for any other.
    if (Test-Path -LiteralPath (Join-Path $Folder '.unfinished')) { return $null }
    $marker = Join-Path $Folder '.root'
    # A folder that was moved has the old place in every script of its environment.
    if ((Test-Path -LiteralPath $marker) -and ((Get-Content -LiteralPath $marker -Encoding UTF8) -ne $Root)) { return $null }
    $python = Get-VenvPython $Folder
    if (-not (Test-Path -LiteralPath $python)) { return $null }
    & $python -c 'import pip' 2>$null | Out-Null
    if ($LASTEXITCODE -ne 0) { return $null }
    $found = Get-PythonVersion $python @()
    if ($null -eq $found -or -not $found.New) { return $null }
    return $found.Version
}

function New-Venv([string]$Name, [double]$Space) {
    $folder = Join-Path $Root $Name
    $there = Get-VenvVersion $folder
    if ($there -and -not $env:PYTHON) { return }
    $python = Find-Python
    if ($there -eq $python.Version) { return }
    if (Test-Path -LiteralPath $folder) {
        Write-Heading "Removing $Name, which is unfinished or of another Python"
        Remove-Item -LiteralPath $folder -Recurse -Force
        if (Test-Path -LiteralPath $folder) { Stop-Setup "$Name is in use; close the programs that run from it and try again." }
    }
    Assert-Space $Space
    Write-Heading "Making $Name with Python $($python.Version)"
    New-Item -ItemType Directory -Force -Path $folder | Out-Null
    if (-not (Test-Path -LiteralPath $folder)) { Stop-Setup "nothing can be written in $Root; check its permissions." }
    Set-Content -LiteralPath (Join-Path $folder '.unfinished') -Value ''
    Set-Content -LiteralPath (Join-Path $folder '.gitignore') -Value '*'
    Set-Content -LiteralPath (Join-Path $folder '.root') -Value $Root -Encoding UTF8
    $code = Invoke-Logged $python.Program (@($python.Arguments) + @('-m', 'venv', $folder))
    if ($code -ne 0) { Stop-WithReason "making $Name" $folder }
}

function Invoke-Pip([string]$Name, [string[]]$Arguments, [string]$Doing) {
    $folder = Join-Path $Root $Name
    $pip = @('-m', 'pip', 'install', '--no-input', '--disable-pip-version-check', '--progress-bar', 'off')
    $code = Invoke-Logged (Get-VenvPython $folder) ($pip + $Arguments)
    if ($code -ne 0) { Stop-WithReason $Doing $folder }
}

function Get-Fingerprint([string]$Folder) {
    $hash = (Get-FileHash -LiteralPath (Join-Path $Root 'pyproject.toml') -Algorithm SHA256).Hash.Substring(0, 16)
    return "$hash $((Get-VenvVersion $Folder) -replace '\.\d+$', '')"
}

function Install-Contents([string]$Name, [string]$Contents, [bool]$Editable, [string[]]$Requirements) {
    $folder = Join-Path $Root $Name
    $stampFile = Join-Path $folder 'stamp'
    $wanted = "$(Get-Fingerprint $folder) $Contents"
    $stamp = ''
    if (Test-Path -LiteralPath $stampFile) { $stamp = "$(Get-Content -LiteralPath $stampFile)" }
    # setuptools packs whatever an earlier build left there, also modules that no longer exist.
    Remove-Item -Path (Join-Path $Root 'build\lib'), (Join-Path $Root 'build\bdist.*') -Recurse -Force -ErrorAction SilentlyContinue
    Set-Content -LiteralPath (Join-Path $folder '.unfinished') -Value ''
    # An environment with more in it ("all dev") will do where less is wanted ("all").
    if ("$stamp ".StartsWith("$wanted ")) {
        Write-Heading "Refreshing thermodl in $Name"
        $arguments = @('--no-deps', '--no-build-isolation', '--force-reinstall') + (Get-CodeArguments $Editable @('.'))
        Invoke-Pip $Name $arguments "refreshing thermodl in $Name"
    }
    else {
        Write-Heading "Installing $Requirements in $Name (minutes the first time)"
        Remove-Item -LiteralPath $stampFile -Force -ErrorAction SilentlyContinue
        # setuptools stays, so that a refresh needs neither the network nor a build environment.
        Invoke-Pip $Name @('--upgrade', 'pip>=25.1', 'setuptools>=77') "updating pip in $Name"
        Invoke-Pip $Name (Get-CodeArguments $Editable $Requirements) "installing the packages in $Name"
        Set-Content -LiteralPath $stampFile -Value $wanted
    }
    Remove-Item -LiteralPath (Join-Path $folder '.unfinished') -Force
}

function Get-CodeArguments([bool]$Editable, [string[]]$Requirements) {
    # Type checkers follow only the strict form of an editable installation.
    if ($Editable) { return @('--config-settings', 'editable_mode=strict', '-e') + $Requirements }
    return $Requirements
}

# ---- What only the tests need: a Chromium (Windows brings its own CJK fonts) ----

function Find-Browser {
    foreach ($base in @($env:ProgramFiles, ${env:ProgramFiles(x86)}, $env:LOCALAPPDATA)) {
        foreach ($name in @('Google\Chrome\Application\chrome.exe', 'Microsoft\Edge\Application\msedge.exe')) {
            if ($base -and (Test-Path -LiteralPath (Join-Path $base $name))) { return Join-Path $base $name }
        }
    }
    return $null
}

function Initialize-Browser {
    # Returns the arguments of pytest.
    $browser = Find-Browser
    if ($browser) { $env:THERMODL_CHROMIUM = $browser; return @() }
    Write-Heading 'Downloading Chromium with playwright'
    $code = Invoke-Logged (Get-VenvPython (Join-Path $Root '.venv')) @('-m', 'playwright', 'install', 'chromium')
    if ($code -eq 0) { return @() }
    if ($env:CI -eq 'true') {
        Stop-Setup "the browser tests need a Chromium and none could be installed; install Chrome (log: $LogName)."
    }
    Write-Heading "NO CHROMIUM COULD BE HAD: ALL BROWSER TESTS WILL BE SKIPPED; install Chrome and run this again (log: $LogName)"
    return @('-m', 'not browser')
}

# ---- The checks ----

# Of pytest; one thread each, since there is one for each core.
$Workers = @('-n', 'auto', '--maxprocesses', '4', '--dist', 'worksteal')

function Invoke-Check([string]$Name, [string]$Program, [string[]]$Arguments) {
    Write-Heading $Name
    & $Program @Arguments | Out-Host
    if ($LASTEXITCODE -ne 0) { $script:Failed += $Name }
}

function Invoke-Checks([string[]]$Selection) {
    $bin = Join-Path $Root '.venv\Scripts'
    Invoke-Check 'ruff format' (Join-Path $bin 'ruff.exe') @('format', '--check', '.')
    Invoke-Check 'ruff check' (Join-Path $bin 'ruff.exe') @('check', '.')
    Invoke-Check 'pyright' (Join-Path $bin 'python.exe') @('tests\check_types.py')
    Invoke-Check 'import contracts' (Join-Path $bin 'python.exe') @('tests\check_imports.py')
    $env:OMP_NUM_THREADS = '1'
    Invoke-Check 'pytest' (Join-Path $bin 'pytest.exe') ($Workers + $Selection)
}

function Invoke-TorchFreeChecks {
    # Whoever only analyzes and views runs installs no torch; no test of that part may need it.
    $name = '.venv-notorch'
    $env:PYTHON = Get-VenvPython (Join-Path $Root '.venv')
    New-Venv $name 2
    Install-Contents $name 'view, tests' $false @('.[view]', 'pytest>=8.3', 'pytest-xdist>=3.6', 'hypothesis>=6.100')
    $bin = Join-Path (Join-Path $Root $name) 'Scripts'
    $absent = 'import importlib.util, sys; sys.exit(importlib.util.find_spec(''torch'') is not None)'
    Invoke-Check "there is no torch in $name" (Join-Path $bin 'python.exe') @('-c', $absent)
    Invoke-Check 'pytest without torch' (Join-Path $bin 'pytest.exe') ($Workers + @('-m', 'not slow', 'tests/analyze', 'tests/viewer'))
    Invoke-Check 'thermodl --help without torch' (Join-Path $bin 'thermodl.exe') @('--help')
    Invoke-Check 'thermodl ls without torch' (Join-Path $bin 'thermodl.exe') @('ls')
}

# ---- The three ways to call this ----

function Initialize-Environment([string]$Contents, [bool]$Editable, [string[]]$Requirements) {
    # torch for Windows comes without the CUDA libraries.
    $needed = 4
    if (Test-Path -LiteralPath (Join-Path $Root '.venv\stamp')) { $needed = 1 }
    New-Venv '.venv' $needed
    Set-Content -LiteralPath $Log -Value '' -Encoding UTF8
    Assert-Space $needed
    Install-Contents '.venv' $Contents $Editable $Requirements
}

function Clear-Surroundings {
    # A user's settings for everyday use would put the packages elsewhere.
    foreach ($name in @('PYTHONPATH', 'PYTHONHOME', 'PIP_TARGET', 'PIP_PREFIX', 'PIP_ROOT')) {
        Remove-Item -LiteralPath "Env:$name" -ErrorAction SilentlyContinue
    }
    $env:PIP_USER = '0'
    $env:PIP_REQUIRE_VIRTUALENV = '0'
    $env:PYTHONUNBUFFERED = '1'
    $env:PYTHONUTF8 = '1'
    $env:PYRIGHT_PYTHON_CACHE_DIR = Join-Path $Root '.venv\cache'
    $env:PYRIGHT_PYTHON_ENV_DIR = Join-Path $Root '.venv\node'
}

function Invoke-Main {
    if ($Mode -notin @('', 'demo', 'test')) { Stop-Setup "unknown argument '$Mode'; expected nothing, demo or test." 2 }
    Clear-Surroundings
    if ($Mode -eq 'test') {
        Initialize-Environment 'all dev' $false @('.[all]', '--group', 'dev')
        $selection = @(Initialize-Browser)
        Invoke-Checks $selection
        Invoke-TorchFreeChecks
        if ($script:Failed) { Stop-Setup "not all checks passed: $($script:Failed -join ', '); see above." }
        Write-Heading 'All checks passed (.venv now holds a copy; setup_env.ps1 makes it follow the source again)'
        return
    }
    Initialize-Environment 'all' $true @('.[all]')
    if ($Mode -eq 'demo') {
        Write-Heading 'thermodl demo'
        & (Join-Path $Root '.venv\Scripts\thermodl.exe') demo | Out-Host
        if ($LASTEXITCODE -ne 0) { Stop-Setup "thermodl demo ended with exit code $LASTEXITCODE; its last lines above say why." }
        return
    }
    $seconds = [int]((Get-Date) - $Started).TotalSeconds
    Write-Heading "Ready after $seconds s: .venv\Scripts\Activate.ps1, then thermodl --help"
}

# These variables and the folder belong to the caller when the script runs in an open shell.
$savedVariables = @{}
Get-ChildItem Env: | ForEach-Object { $savedVariables[$_.Name] = $_.Value }
Push-Location -LiteralPath $Root
try { Invoke-Main }
finally {
    Pop-Location
    Get-ChildItem Env: | Where-Object { -not $savedVariables.ContainsKey($_.Name) } | ForEach-Object { Remove-Item -LiteralPath "Env:$($_.Name)" }
    foreach ($name in $savedVariables.Keys) { Set-Item -LiteralPath "Env:$name" -Value $savedVariables[$name] }
}
exit 0
